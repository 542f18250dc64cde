"""Predicts how far a patient's diabetes will have progressed after a year."""

import os

import features
import joblib
import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))


def setup():
    """Once per worker; what it returns is the second argument of every `predict`."""
    return joblib.load(os.path.join(HERE, "model.joblib"))


def predict(patients, pipeline):
    """A list of patients in; NumPy arrays out, an element per patient."""
    rows = features.matrix(patients)
    return {
        "progression": np.round(pipeline.predict(rows), 1),
        "imputed": np.isnan(rows).sum(axis=1),
    }
