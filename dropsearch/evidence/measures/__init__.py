"""What dropout does to a trained network, one phenomenon a file.

Every file has the same face: `measure(trained) -> Measured`, for one retraining of an arm's winner. What comes of
several is put together by `dropsearch.app`; how sure a difference is, is told by `dropsearch.evidence.compare`.
"""
