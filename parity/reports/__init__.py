"""What a comparison found: rows, text, JSON, page."""
