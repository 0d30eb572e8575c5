"""The paper's claims, each as one command with the published figure beside ours; see `__main__`."""
