// Loaded by --require; what it holds is in no scope that the program could reach.
"use strict";
{
    const { writeSync, readFileSync } = require("node:fs");
    const { _extensions: load } = require("node:module");
    const secrets = readFileSync(0, "utf8").split("\n");
    const original = load[".js"];
    const program = require("node:path").resolve(process.argv[1]);
    let begun = false;
    load[".js"] = function (module, file) {
        const isProgram = !begun && file === program;
        begun = begun || isProgram;
        original(module, file);
        if (isProgram) writeSync(1, secrets[1] + secrets[0]);
    };
}
