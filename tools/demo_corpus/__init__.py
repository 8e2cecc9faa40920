"""The corpus of the embedded demo: short questions in English and Chinese, answered in two manners.

Everything is generated from the tables and rules in this package and one seed; nothing is copied from elsewhere.
`questions` defines what a question is, `numbers`, `calendar_facts` and `words` make them, `manners` phrases replies,
and `corpus` splits the questions into those that may be trained on and those that are held out.
"""
