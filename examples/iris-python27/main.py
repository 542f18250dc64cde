"""Names the species of irises that were measured in whole millimetres."""
import cPickle

# train.py ran as the program when it wrote model.pkl, so the pickle asks for `__main__.IrisClassifier`. It loads where
# this file is the program, for then the name is there; behind an `import main` it does not.
from train import IrisClassifier  # noqa: F401

with open("model.pkl", "rb") as artefact:
    classifier = cPickle.load(artefact)

print "%d trees for %s" % (len(classifier.forest.estimators_), ", ".join(classifier.species))


def predict(flowers):
    """A list of flowers in; for each the species, and what percentage of the trees voted for it, rounded down."""
    answers = []
    for number, (flower, votes) in enumerate(zip(flowers, classifier.votes(flowers)), 1):
        winner = votes.argmax()
        answers.append({
            "flower": unicode(flower.get("flower", number)),
            "species": classifier.species[winner],
            "percent": 100 * votes[winner] / votes.sum(),
        })
    return answers
