"""What fits on a GPU and what it can serve, computed from a config.json and a datasheet, without torch or vLLM.

    model      config.json -> widths, and the parameters of each part
    images     picture -> visual tokens, as transformers resizes it
    weights    parameters -> bytes on each GPU
    kv         bytes -> blocks -> the tokens that vLLM logs
    memory     what vLLM's profiling run will find used, and what is left for the KV cache
    roofline   arithmetic and bytes -> seconds
    load       seconds -> requests a second
    question   what is asked: a model, an engine's settings, a load
    settings   (profile, GPU) -> an engine's settings
    fits       the rule of refusal, and the nearest thing that works
    overview   a row for each profile, in docs/capacity.md
    figures    everything above as a list of figures, each with formula and source

Sources of formulas are given as paths inside the installed vLLM 0.32 (`v1/core/kv_cache_utils.py`: function) or inside
transformers. Nothing here was measured on a GPU; docs/capacity.md says what was checked, against what, and the error.
"""
