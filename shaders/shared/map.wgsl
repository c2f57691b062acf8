// `quad` of an op that makes the args.n elements of y from as many of its inputs. The op that imports this defines
//   value(i) -> vec4: elements 4i to 4i + 3

fn quad(i: u32) {
    if 4u * i + 4u <= args.n {
        y[i] = value(i);
    } else if 4u * i < args.n {
        y[i] = select(y[i], value(i), inside(i, args.n));
    }
}
