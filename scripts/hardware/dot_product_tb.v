// Runs dot_product.v on the last layer of the digits net, ip2, with the memories that `ristretto export --format=mem
// --vectors N` wrote, and compares its outputs with the exported ones. Run it in the folder of the export.

module dot_product_tb;
`include "net.vh"

    localparam WORDS = IP2__WEIGHTS_LINES / IP2__WEIGHTS_ROWS; // of one output
    localparam LANES = IP2__WEIGHTS_PER_LINE;
    localparam X_FIELD = RELU3__VECTORS_FIELD_BITS, W_FIELD = IP2__WEIGHTS_FIELD_BITS;
    localparam Y_FIELD = IP2__VECTORS_FIELD_BITS, Y_LANES = IP2__VECTORS_PER_LINE;
    localparam IMAGES = IP2__VECTORS_ROWS, OUTPUTS = IP2__COUNT;
    localparam Y_LINES = IP2__VECTORS_LINES / IMAGES; // of one image

    reg [IP2__WEIGHTS_LINE_BITS-1:0] weights [0:IP2__WEIGHTS_LINES-1];
    reg [IP2__BIASES_LINE_BITS-1:0] biases [0:IP2__BIASES_LINES-1];
    reg [RELU3__VECTORS_LINE_BITS-1:0] inputs [0:RELU3__VECTORS_LINES-1];
    reg [IP2__VECTORS_LINE_BITS-1:0] expected [0:IP2__VECTORS_LINES-1];

    reg clk = 0, valid = 0, first = 0, last = 0;
    reg [LANES*X_FIELD-1:0] x;
    reg [LANES*W_FIELD-1:0] w;
    reg signed [IP2__SUM_BITS-1:0] bias;
    wire done;
    wire [IP2__BITS-1:0] y;
    reg [Y_FIELD-1:0] wanted;
    integer image, out, word, differing;

    dot_product #(
        .LANES(LANES),
        .X_FIELD(X_FIELD),
        .X_SIGNED(RELU3__VECTORS_SIGNED),
        .W_FIELD(W_FIELD),
        .SUM_BITS(IP2__SUM_BITS),
        .UP(IP2__SUM_UP),
        .SHIFT(IP2__REQUANTIZE_SHIFT),
        .Y_BITS(IP2__BITS),
        .LOW(IP2__REQUANTIZE_LOW),
        .HIGH(IP2__REQUANTIZE_HIGH),
        .ROUNDING(ROUNDING)
    ) unit (.clk(clk), .valid(valid), .first(first), .last(last), .x(x), .w(w), .bias(bias), .done(done), .y(y));

    always #5 clk = ~clk;

    initial begin
        $readmemh(IP2__WEIGHTS_FILE, weights);
        $readmemh(IP2__BIASES_FILE, biases);
        $readmemh(RELU3__VECTORS_FILE, inputs);
        $readmemh(IP2__VECTORS_FILE, expected);
        differing = 0;
        for (image = 0; image < IMAGES; image = image + 1)
            for (out = 0; out < OUTPUTS; out = out + 1) begin
                bias = biases[out];
                for (word = 0; word < WORDS; word = word + 1) begin
                    @(negedge clk);
                    valid = 1;
                    first = word == 0;
                    last = word == WORDS - 1;
                    x = inputs[image*WORDS+word];
                    w = weights[out*WORDS+word];
                end
                @(negedge clk);
                valid = 0;
                wanted = expected[image*Y_LINES+out/Y_LANES] >> (out % Y_LANES * Y_FIELD);
                if (done !== 1'b1 || y !== wanted[IP2__BITS-1:0]) differing = differing + 1;
            end
        $display("ip2: %0d outputs of %0d images: %0d differ", OUTPUTS, IMAGES, differing);
        $finish;
    end
endmodule
