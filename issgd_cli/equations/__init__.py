"""The papers' numbered results, one pure function each."""
