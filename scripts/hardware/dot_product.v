// A sum of products, LANES of them in each cycle, requantized: round(sum / 2^SHIFT), saturated to LOW and HIGH.
//
// Words x and w have LANES fields, the first one in the least significant bits; unused fields of w are 0. `first` marks
// the first word of a sum, `last` the last one: a cycle later, `done` is 1 and y is the result. Parameters are those of
// net.vh, which `ristretto export --format=mem` writes.

module dot_product #(
    parameter LANES = 1,
    parameter X_FIELD = 8,   // bits of a field of x, and whether they are two's complement
    parameter X_SIGNED = 1,
    parameter W_FIELD = 8,   // bits of a field of w, two's complement
    parameter SUM_BITS = 32, // of the accumulator, two's complement: no sum of the net needs more
    parameter UP = 0,        // the sum is shifted left by this before the bias is added
    parameter SHIFT = 0,     // the fraction bits that y has less than the sum; negative: more
    parameter Y_BITS = 8,
    parameter signed [63:0] LOW = -128,
    parameter signed [63:0] HIGH = 127,
    parameter ROUNDING = 0   // 0: half to even, 1: half up, 2: half away from zero, 3: down
) (
    input clk,
    input valid,
    input first,
    input last,
    input [LANES*X_FIELD-1:0] x,
    input [LANES*W_FIELD-1:0] w,
    input signed [SUM_BITS-1:0] bias,
    output reg done,
    output reg [Y_BITS-1:0] y
);
    // Two bits more than the accumulator, for the rounding; a shift by more than its width gives the same as RIGHT.
    localparam RIGHT = SHIFT < 0 ? 0 : SHIFT > SUM_BITS + 1 ? SUM_BITS + 1 : SHIFT;
    localparam LEFT = SHIFT < 0 ? -SHIFT : 0;
    localparam WIDE = SUM_BITS + 2 + LEFT;
    localparam signed [WIDE-1:0] ONE = 1;
    localparam signed [WIDE-1:0] HALF = RIGHT > 0 ? ONE << (RIGHT > 0 ? RIGHT - 1 : 0) : 0;

    // The sum of this word's products. A field of x has one bit more here, so that it is signed in any case.
    reg signed [SUM_BITS-1:0] products;
    reg signed [X_FIELD:0] a;
    reg signed [W_FIELD-1:0] b;
    integer i;
    always @* begin
        products = 0;
        a = 0;
        b = 0;
        for (i = 0; i < LANES; i = i + 1) begin
            a = {X_SIGNED ? x[(i + 1) * X_FIELD - 1] : 1'b0, x[i*X_FIELD+:X_FIELD]};
            b = w[i*W_FIELD+:W_FIELD];
            products = products + a * b;
        end
    end

    reg signed [SUM_BITS-1:0] sum;
    wire signed [SUM_BITS-1:0] total = (first ? {SUM_BITS{1'b0}} : sum) + products;
    wire signed [SUM_BITS-1:0] biased = (total <<< UP) + bias;

    function signed [WIDE-1:0] rounded(input signed [WIDE-1:0] n);
        reg signed [WIDE-1:0] odd;
        begin
            odd = (n >>> RIGHT) & ONE;
            if (RIGHT == 0) rounded = n;
            else if (ROUNDING == 0) rounded = (n + (HALF - ONE) + odd) >>> RIGHT;
            else if (ROUNDING == 1) rounded = (n + HALF) >>> RIGHT;
            else if (ROUNDING == 2 && n < 0) rounded = -((HALF - n) >>> RIGHT);
            else if (ROUNDING == 2) rounded = (n + HALF) >>> RIGHT;
            else rounded = n >>> RIGHT;
        end
    endfunction

    wire signed [WIDE-1:0] wide = biased;
    wire signed [WIDE-1:0] result = rounded(wide <<< LEFT);

    always @(posedge clk) begin
        done <= valid && last;
        if (valid) sum <= total;
        if (valid && last) y <= result < LOW ? LOW : result > HIGH ? HIGH : result;
    end
endmodule
