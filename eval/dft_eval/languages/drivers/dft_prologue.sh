# Read by bash before the program (BASH_ENV).
exec 199<&0 </dev/null
unset BASH_ENV
