"""Who made a bundle, and may it run here? Keys, signatures, and the policy that says which keys are trusted.

    keys        Ed25519 key pairs in PEM files
    signature   what is signed of a bundle, and where it lies
    policy      which keys this machine trusts, and what happens to bundles without one
    check       a bundle's folder against a policy, before any model in it is read

`cryptography` (the extra `sign`) is imported only where there is a key.
"""
