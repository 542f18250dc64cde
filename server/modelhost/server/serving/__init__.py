"""The hot path: service → route → pool → worker → link. No SQL, no disk, no thread hop for a call."""
