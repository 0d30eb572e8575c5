"""Any two models captured and compared, layer by layer."""
