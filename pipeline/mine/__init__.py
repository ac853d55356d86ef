"""Hard negatives for MMEB-train pairs: targets that a given checkpoint finds close to a query, but not too close.

    job      the run: corpus -> embeddings -> neighbours -> negatives -> a copy of the data with negative columns
    corpus   a subset's rows as distinct sides
    windows  sides -> embeddings on disk, a window at a time, shared out over ranks
    search   exact nearest neighbours, block by block (the only file that imports faiss)
    choose   which neighbours become negatives (pure)
    columns  negatives -> MMEB's columns

On ranks, not on Ray: what is spread out is the model's forward, which the training machines with their launcher are there for, and Ray
stays in `data_prep`. Ranks share nothing but a folder and two barriers.
"""
