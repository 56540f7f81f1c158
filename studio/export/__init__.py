"""What leaves the studio: QDQ ONNX, float ONNX with encodings, report, and the proof that they agree."""
