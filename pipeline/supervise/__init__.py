"""The supervisor: starts a launcher, hears every rank, ends all of them or none, and says how the job ended."""
