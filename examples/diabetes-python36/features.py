"""What becomes of a patient's record before the regression sees it."""

from collections import Mapping  # gone from here since Python 3.10

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

# Our names for scikit-learn's columns.
COLUMNS = {"age": 0, "bmi": 2, "blood_pressure": 3, "hdl": 6, "triglycerides": 8}


class InvalidParameters(ValueError):
    """The caller sent something that is no list of patients. ModelHost answers INVALID_ARGUMENT with the message."""


class Interactions(BaseEstimator, TransformerMixin):
    """Appends the product of every two columns."""

    def fit(self, rows, targets=None):
        return self

    def transform(self, rows):
        first, second = np.triu_indices(rows.shape[1], k=1)
        return np.hstack([rows, rows[:, first] * rows[:, second]])


def matrix(patients):
    """A row per patient, NaN where a measurement is missing.

    Measurements are in standard deviations from the mean of the study: 0 is an average patient.
    """
    if not isinstance(patients, list) or not patients:
        raise InvalidParameters("send a list of at least one patient")
    return np.array([_row(number, patient) for number, patient in enumerate(patients, 1)], dtype=np.float)


def _row(number, patient):
    if not isinstance(patient, Mapping):
        raise InvalidParameters(f"patient {number} is {patient!r}, not an object of measurements")
    unknown = sorted(set(patient) - set(COLUMNS))
    if unknown:
        raise InvalidParameters(f"patient {number} has {', '.join(unknown)}; known are {', '.join(COLUMNS)}")
    for name, value in patient.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise InvalidParameters(f"{name} of patient {number} is {value!r}, not a number")
    return [patient.get(name) for name in COLUMNS]
