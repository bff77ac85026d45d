"""Pictures: numbers and images drawn in one style, and the report that shows them all (01 to 07).

In: the tables that other rooms return. Out: matplotlib figures, `figures/`, and the pages
`report.html`, `MODEL_CARD.md` and `map.html`.
Nothing here computes a result.
"""
