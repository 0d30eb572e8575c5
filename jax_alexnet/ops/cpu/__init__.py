"""What computes on processors without a GPU: oneDNN's convolutions, Winograd's filters, kernels' gradients."""
