"""Several trainings of one budget that differ in one thing, told as one result.

A study is a list of arms; each goes through the project's own commands (chorus, prepare, train, evaluate), nested under one MLflow run.

    arms.py       which runs make up the ablation and the elastic figure (pure)
    settings.py   what a study is started with, and the checks before any work
    identity.py   what an arm's result depends on; whether it is still to be run (pure)
    children.py   one command, with its log
    run.py        the arms, one after the other
    scores.py     an arm's scores and their standard errors, from scores.json (pure)
    findings.py   which of the paper's findings reappear (pure)
    tables.py, plots.py   study.json, study.md and the pictures
"""
