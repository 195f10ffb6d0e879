"""The load bench: fitserve beside a hand-rolled server, under wrk."""
