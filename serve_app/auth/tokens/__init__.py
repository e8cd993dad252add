"""Tokens: JWTs of issuers that we believe, and our own.

``token`` takes one apart · ``signature`` judges it by the keys of ``issuers`` and ``jwks`` ·
``claims`` reads what it says · ``sessions`` and ``shared_sessions`` make our own ·
``revocations`` end one before its time
"""
