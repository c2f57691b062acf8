// Checks and times the module that wasm_gemv.rs is compiled to.
import { readFileSync } from "node:fs";

const { instance } = await WebAssembly.instantiate(readFileSync(process.argv[2]));
const { prepare, run, differences } = instance.exports;
let failed = 0;

for (const [outs, dim, group] of [[1, 32, 32], [7, 96, 32], [33, 192, 64], [100, 640, 128], [64, 768, 256], [40, 416, 416]]) {
    prepare(outs, dim, group);
    run(0, 1);
    run(1, 1);
    const wrong = differences();
    failed += wrong;
    console.log(`${outs}x${dim}/${group}: ${wrong} of ${outs} results differ`);
}
for (const [outs, dim] of [[1024, 1024], [2048, 2048], [6912, 2560]]) {
    prepare(outs, dim, 128);
    const gops = [0, 1].map((which) => {
        const times = [];
        for (let i = 0; i < 12; i++) {
            // CPU time, so that other processes count less.
            const start = process.cpuUsage();
            run(which, 4);
            times.push(process.cpuUsage(start).user);
        }
        return (2e-3 * outs * dim * 4) / Math.min(...times);
    });
    failed += differences();
    console.log(`${outs}x${dim}: scalar ${gops[0].toFixed(1)}, highest level ${gops[1].toFixed(1)} GOPS`);
}
process.exit(failed ? 1 : 0);
