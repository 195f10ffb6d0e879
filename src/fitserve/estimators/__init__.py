"""Objects with the shape of a scikit-learn estimator at work: what they take and give, and the shortest way there."""
