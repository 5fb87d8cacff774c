"""From a request to a stored trajectory: names, the store, dispatch, arrivals, and the sampler a strategy sees."""
