"""A server under load while everything that can be killed, stopped or changed is: `make chaos`.

A real `modelhost serve` has deployments on Python 2.7, Python 3.6 and R whose answers can be checked (`models.py`).
Callers (`callers.py`), some of streams (`streams.py`) and some with tensors (`tensors.py`), have each checked
(`judge.py`); a plan made from a seed (`plan.py`) says what is done meanwhile (`deeds.py`). What was acknowledged is
written down, and looked for after each restart (`journal.py`). A call may fail only as `causes.py` allows for what was
being done to its deployment.
"""
