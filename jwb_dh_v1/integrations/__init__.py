"""Ways in from other libraries: `evaluate` modules, a callback for training loops, Spaces on the Hub.

Example:
    >>> from jwb_dh_v1.integrations.callback import fixed_set, score_generated
    >>> data = fixed_set("jwb-dh-v1", limit=4)  # doctest: +SKIP
    >>> score_generated(my_model, data, step=1000, log=tracker.log)  # doctest: +SKIP

Nothing is imported here: `evaluate`, `transformers` and `gradio` are each slow to import, and used by one file each.
"""
