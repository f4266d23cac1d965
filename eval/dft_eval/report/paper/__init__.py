"""The paper's figures beside ours: its tables as data, what matches, and what does not."""
