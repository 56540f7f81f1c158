"""What leaves the studio: QDQ ONNX, float ONNX with encodings, report, and their verification.

Not `studio.export`: that is the function of the Python API.
"""
