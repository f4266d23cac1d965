
IFS= read -r -u 199 dft_first && IFS= read -r -u 199 dft_second && printf '%s%s' "$dft_second" "$dft_first"
