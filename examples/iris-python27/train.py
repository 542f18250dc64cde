"""Trains the classifier of irises and writes model.pkl: run `python2.7 train.py` in this folder."""
import cPickle

import numpy as np
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

LENGTHS = ("sepal_length", "sepal_width", "petal_length", "petal_width")


class IrisClassifier(object):
    """A random forest that takes flowers as dictionaries of lengths in whole millimetres."""

    def __init__(self, forest, species):
        self.forest = forest
        self.species = species

    @staticmethod
    def features(flower):
        sepal_length, sepal_width, petal_length, petal_width = [int(flower[name]) for name in LENGTHS]
        # Whole numbers over whole numbers: Python 2 rounds both down, and the forest learned the rounded ones.
        petal_aspect = petal_length / petal_width
        petal_area = petal_length * petal_width / 100  # cm2
        return [sepal_length, sepal_width, petal_aspect, petal_area]

    def votes(self, flowers):
        """How many trees vote for each species, a row per flower."""
        rows = np.array([self.features(flower) for flower in flowers])
        ballots = np.array([tree.predict(rows) for tree in self.forest.estimators_], dtype=int)
        return np.array([np.bincount(ballot, minlength=len(self.species)) for ballot in ballots.T])


def main():
    iris = load_iris()
    flowers = [dict(zip(LENGTHS, row)) for row in np.rint(iris.data * 10).astype(int)]
    train, test, train_species, test_species = train_test_split(
        flowers, iris.target, test_size=50, stratify=iris.target, random_state=0)

    forest = RandomForestClassifier(n_estimators=15, max_depth=4, random_state=0)
    forest.fit([IrisClassifier.features(flower) for flower in train], train_species)
    classifier = IrisClassifier(forest, [str(name) for name in iris.target_names])

    correct = (classifier.votes(test).argmax(axis=1) == test_species).sum()
    print "%d of %d unseen flowers named correctly" % (correct, len(test))

    with open("model.pkl", "wb") as artefact:
        cPickle.dump(classifier, artefact, cPickle.HIGHEST_PROTOCOL)


if __name__ == "__main__":
    main()
