"""What must hold: the cases, one file a grid."""
