"""Why two layers differ: a cause is named only after a counterfactual has shown it."""
