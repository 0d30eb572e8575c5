"""What is read and written: checkpoints, weights of several layouts, exports, finished runs."""
