"""What leaves the studio: QDQ ONNX, float ONNX with encodings, report, and their verification."""
