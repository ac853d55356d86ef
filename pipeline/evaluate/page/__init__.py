"""An evaluation as one HTML page that needs nothing else: no network, no scripts, pictures inside.

clean.py       text that came from data or models, made harmless for a page
pictures.py    images as data URIs within a budget of bytes
charts.py      inline SVG; colours are the style sheet's, for light and dark
tables.py      the paper's tables with our rows beside the published ones; scores by number of chorus tokens
gallery.py     which predictions are shown
render.py      all of it together; compared.py: the page of a comparison
templates/     HTML and CSS
"""
