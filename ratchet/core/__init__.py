"""Facts, shapes, errors: the types every other room speaks. The only I/O is the import of a file a user named (`load`).

Glossary (one word per idea, one idea per word)

    task       a question with what is needed to judge an answer to it
    turn       one generation: the exact tokens that went in and came out, with their log-probabilities
    trajectory the turns of one agent's thread
    rollout    one attempt at a task: its trajectories, its score, or the reason it has none
    group      all attempts at one task: the atom of the buffer and of the baseline
    batch      the groups of one training step as flat columns of numbers
    step       one pass of the loop: explore, train, publish
    update     one optimiser step; a step holds one or more
    use        one training on a group; under replay a group has several
    correction a weight against the sampler, on top of an algorithm's own ratio
    teacher    a frozen policy whose log-probabilities are learned from
    critic     a model that foresees the reward before each token
    cell       one run of a sweep
    version    how many training steps the weights have seen: the initial weights are version 0
"""
