"""Trains the regression and writes model.joblib: run `python3.6 train.py` in this folder."""

import joblib
import numpy as np
from features import COLUMNS, Interactions
from sklearn.datasets import load_diabetes
from sklearn.impute import SimpleImputer
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def main():
    diabetes = load_diabetes()
    # scikit-learn ships columns whose squares add up to 1; times the root of their length they are in deviations.
    rows = diabetes.data[:, list(COLUMNS.values())] * np.sqrt(len(diabetes.data))

    pipeline = make_pipeline(
        SimpleImputer(strategy="median"), Interactions(), StandardScaler(), RidgeCV(alphas=np.logspace(-1, 3, 9))
    )
    scores = cross_val_score(pipeline, rows, diabetes.target, cv=10)
    print(f"R2 {scores.mean():.2f}, cross-validated on {len(rows)} patients")

    joblib.dump(pipeline.fit(rows, diabetes.target), "model.joblib")


if __name__ == "__main__":
    main()
