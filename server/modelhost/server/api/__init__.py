"""The public API as transport-free handlers: a call and a message in, a message out, domain errors on the way."""
