"""HumanEval and HumanEval+ as EvalPlus scores them: data, sanitiser, driver and verdicts."""
