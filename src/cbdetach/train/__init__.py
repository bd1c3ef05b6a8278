"""Training of the slice segmenter, and its export to ONNX. PyTorch lives here and nowhere else (extra `train`)."""
