"""What the Python worker makes of a generator: its items as JSON, one by one or all in a list.

Lies beside python_worker.py and is as that file: nothing but the standard library, the same for CPython 2.7 to 3.13.
"""

import time

from python_values import Refusal, attempt, to_json

GENERATOR = type(None for _ in ())

_clock = getattr(time, "perf_counter", time.time)
_END = object()


class Items(object):
    """A generator that the model's function has returned. `model` is told what a failure would be called."""

    def __init__(self, model, generator, took):
        self._model = model
        self._generator = generator
        self._took = took  # seconds in the model's code
        self._count = 0

    def next(self):
        """The next item as the header and body of `item`; after the last one, those of `result`."""
        self._model.stage = "model_raised"
        started = _clock()
        try:
            item = next(self._generator, _END)
        finally:
            self._took += _clock() - started
            self._model.ended = time.time()
        if item is _END:
            return self._result(), b""
        self._model.stage = "result_not_serialisable"
        text = to_json(item, (None, self._count))
        self._count += 1
        return {"type": "item", "seq": self._count - 1}, text

    def all(self, limit):
        """All of them as one list, of at most `limit` bytes: a call that is no stream has nothing else to give."""
        texts, size = [], 1
        while True:
            header, text = self.next()
            if header["type"] == "result":
                return header, b"[" + b",".join(texts) + b"]"
            size += len(text) + 1
            if size > limit:
                self._model.stage = "result_too_large"
                words = (
                    "the model goes on after items of %d bytes, and one result may have %d; a stream has no such limit"
                )
                raise Refusal(words % (size, limit))
            texts.append(text)

    def cancel(self):
        """Ends the generator where it is: its `finally` blocks run. The header and body of `result`."""
        self._model.stage = "model_raised"
        self._generator.close()
        return dict(self._result(), cancelled=True), b""

    def drop(self):
        """Ends the generator after a failure, which is what there is to tell, whatever else it raises now."""
        attempt(self._generator.close)

    def _result(self):
        return {"type": "result", "run_ns": max(int(self._took * 1e9), 0), "items": self._count}
