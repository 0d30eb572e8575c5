"""Images: where they come from, decoded, cached, in batches."""
