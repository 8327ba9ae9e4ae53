"""Whether importance sampling pays: a trial, what each way to draw would have done in it, and the advice."""
