"""An OpenAI-compatible server on runs and models: one engine thread, many requests at a time, nothing open by default."""
