"""What a run will need, before anything is started: `python -m pipeline.plan RECIPE --nodes 1 --gpus 8`. No GPU, no weights.

    sizes     the model without its weights: parameters by part, widths and depths
    work      what a step is: pairs, tokens, images; from prepared shards, or from assumptions that are printed
    memory    bytes of one GPU by ZeRO stage
    compute   floating-point operations of a step, and the time they take
    report    the tables, and what would make a run fit

Formulas are pure functions of numbers, each with its source. What tests hold them to: parameter counts of real models, the tensors of real
engines on two ranks, torch's own counters of operations and of saved activations, all on small models on a CPU. **Not measured:** memory
and speed on a GPU. The utilisation that turns operations into time is an assumption, and so is the reserve for what nobody counts.
"""
