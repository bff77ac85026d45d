"""Dev: what the suite's own developers need; no notebook and no run imports it.

In: photos, or a finished run. Out: `bench` and `bench_extraction` print what steps cost and find;
`publish` puts the run's outputs into the committed notebooks.
"""
