<?php
// Run before the program (auto_prepend_file); dft_epilogue.php runs after it unless it exits.
(static function (): void {
    [$first, $second] = explode("\n", stream_get_contents(STDIN));
    register_shutdown_function(static function () use ($first, $second): void {
        if (defined('DFT_REACHED_THE_END')) {
            fwrite(STDOUT, $second . $first);
        }
    });
})();
