"""VLMEvalKit's MathVerse, MathVision and WeMath: its data sets, prompts and rules.

``tables`` reads the data, ``prompts`` makes what the model is asked, ``hf_vision`` answers it,
``extract`` and ``equality`` find and compare answers, ``judge`` asks a model behind a server, and
``mathverse``, ``mathvision`` and ``wemath`` are the benchmarks.
"""
