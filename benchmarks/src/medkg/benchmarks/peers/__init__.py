"""Other ways to pass documents through eight hops, each as its own documentation would write it."""
