"""The zoo: architectures of many families, each taken through the whole product.

python -m tests.zoo [--only NAME ...] [--json FILE] [--table FILE]
"""
