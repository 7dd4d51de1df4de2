"""Evidence on whether what the attention points at matters to what the network says.

attributions of every frame, by attention and by the baselines that do not need it
  → replacing frames in their order, and asking again (faithfulness)
  → taking single heads out (ablation)
  → networks and data whose answer is known beforehand (known answers)
  → what was found, kept beside the maps (`tssan_viz.evidence.kept`, which needs no torch)

Everything but `kept` works on a torch module and tensors; clips are (n, k, m, t, v, c).
"""
